// needs: nothing
// A flag of the command line, `cpa --NAME-hello`: CPA starts, runs it, and ends.
func commandLineRegister(nothing) (any, error) {
	return plugin.Flags{Flags: []plugin.Flag{{Name: name + "-hello", Usage: "Say hello", Type: "bool"}}}, nil
}

func commandLineExecute(nothing) (any, error) {
	return plugin.CommandDone{Stdout: []byte("Hello from " + name + ".\n")}, nil
}
