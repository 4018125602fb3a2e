module host-model-callback

go 1.19
