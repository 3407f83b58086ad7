"""What is fetched from the servers of accounts: what is asked for, checked, and handed on."""
