"""The language of iptables: rules and chains as data, how the tools print them, how changes become a script.

A rule is the text that `iptables-save` prints for it: what we write is what the kernel gives back, so that drift is
inequality of text. Comments are ours and take no part in it.
"""
