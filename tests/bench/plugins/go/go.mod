module cpa.test/bench

go 1.21
