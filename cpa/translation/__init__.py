"""Protocol translation: every protocol to and from one intermediate representation (translation.md)."""
