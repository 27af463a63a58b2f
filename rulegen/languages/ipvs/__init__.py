"""The language of IPVS: virtual and real servers as data, `ipvsadm -Sn` printed and read, changes as commands."""
