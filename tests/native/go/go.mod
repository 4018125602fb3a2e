module cpa.test/native

go 1.19
