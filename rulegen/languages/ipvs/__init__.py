"""The language of IPVS: virtual and real servers as values, the format of `ipvsadm -Sn`, and commands of changes."""
