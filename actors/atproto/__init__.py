"""The wire format of the AT Protocol, without any input or output.

Every function here takes bytes or strings that came from the network and gives back checked values,
or raises `WireError` with a reason from the table in `errors.py`. Nothing else is ever raised for
hostile input. The package imports nothing of the other actors, opens no file and no socket.
"""
