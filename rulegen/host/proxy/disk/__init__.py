"""The files of a proxy on disk: releases, logs, certificates, and folders that no other user can replace."""
