"""State that several processes or machines share through Redis or Valkey."""
