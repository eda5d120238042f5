# SPDX-License-Identifier: Apache-2.0
"""The privileged recorder service and its thin login-shell client.

service.py is the parent: it accepts and forks. child.py is one session, from the
handshake to the end of the recording. client.py is what the login shell does
instead of recording itself; it runs as the user and is trusted with nothing:
who they are, the kernel tells. wire.py is what passes between the two.
"""
