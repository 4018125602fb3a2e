"""The management API and the pages of plugins: what operators and their browsers use, apart from the model API.

::

    site.py           one request from its head to its answer: order of checks, limits, the leaving client
    guard.py keys.py  who may: names and origins of browsers, the management key
    calls.py          what a handler gets and gives
    routes.py         the table of native endpoints; plugin_list.py and logins.py hold the handlers
    plugin_routes.py  what plugins serve behind the key; pages.py what they serve without
    escaping.py       HTML-escaped JSON

Plain ASGI as the model API is (gateway.py), for its reasons: nobody's body is read before the key was checked.
"""
