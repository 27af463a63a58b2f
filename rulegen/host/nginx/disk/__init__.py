"""What nginx has on disk: releases, logs, certificates, and folders that nobody else can exchange."""
