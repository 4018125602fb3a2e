"""Plugins as parts of the proxy: which there are, how they live, what they may ask and where they take part.

`discovery.py` finds libraries, `registration.py` is the contract's greeting, `generation.py` one loaded copy,
`slot.py` everything that happens to one plugin id, `manager.py` all of them.
"""
