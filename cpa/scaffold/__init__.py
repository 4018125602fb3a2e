"""`cpa plugin new`: folders with a plugin to start from, in C, Rust and Go.

`capabilities` says what can be asked for, `plugin` makes the files, ``templates/`` holds their texts, and ``helpers/``
the code that every plugin of a language gets a copy of. The helpers are the ones of the examples: in a checkout there
are links to ``examples/plugin/lib``, of which wheels and source archives get copies, so that each has one source.
"""
