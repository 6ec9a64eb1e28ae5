"""Encryption at rest: a data key an account, wrapped by a keyset or by Cloud KMS."""
