"""BMW and MINI through the MyBMW app's API, wrapped around bimmer-connected."""
