"""Built-in steps of chains: pure functions that change a body without changing its protocol."""
