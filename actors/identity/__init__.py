"""Who an account is: what its DID document says, and whether its handle is its own.

Pure: what was asked and answered comes in as arguments.
"""
