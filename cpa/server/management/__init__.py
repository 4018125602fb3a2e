"""The management API and the pages of plugins: what operators and their browsers use, apart from the model API.

::

    site.py           one request from its head to its answer: order of checks, limits, the leaving client
    guard.py keys.py  who may: names and origins of browsers, the management key
    calls.py          what a handler gets and gives
    routes.py         the table of native endpoints, whose handlers are in modules by their subject
    saving.py         edits of the configuration file: scalars.py, client_keys.py, provider_lists.py, maps.py use it
    whole_config.py   that file as it is
    plugin_routes.py  what plugins serve behind the key; pages.py what they serve without
    escaping.py       HTML-escaped JSON

Plain ASGI as the model API is (gateway.py), for its reasons: nobody's body is read before the key was checked.
"""
