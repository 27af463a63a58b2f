"""The language of iptables: rules and chains as values, their text in the tools' format, and scripts of changes.

A rule is the text that `iptables-save` prints for it. The kernel returns the text that rulegen writes, so two rules are
equal if their texts are. Comments take no part in the comparison.
"""
