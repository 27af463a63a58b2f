"""The Lua program that HAProxy loads, in parts."""
