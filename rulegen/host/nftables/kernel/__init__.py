"""The protocol of nf_tables: messages, attributes, transactions and dumps, in the terms of the kernel."""
