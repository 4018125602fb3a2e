module cpa-examples

go 1.19
