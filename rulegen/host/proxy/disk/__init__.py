"""The files of nginx on disk: releases, logs, certificates, and folders that no other user can replace."""
