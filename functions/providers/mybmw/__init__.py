"""BMW and MINI through the MyBMW app's API, wrapped around bimmer-connected.

Importing a module of this package imports the library (170 ms), so only whoever builds the provider does.
"""

import logging

# Set before any module here can import the library: 0.17.4 logs an ERROR as it is imported ("non-functional", which
# the README says in its own words), and at ERROR and WARNING it writes VINs and whatever the service answered.
# httpx logs whole URLs, which hold VINs and event ids; httpcore logs headers.
for _name, _level in (
    ("bimmer_connected", logging.CRITICAL),
    ("httpx", logging.WARNING),
    ("httpcore", logging.WARNING),
):
    logging.getLogger(_name).setLevel(_level)
