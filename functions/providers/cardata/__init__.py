"""BMW and MINI through CarData, the maker's official customer API: read-only, rationed to 50 requests a day."""
