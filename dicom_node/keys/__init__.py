"""The keys of a site: what it opens, what it signs with, and whom it trusts."""
