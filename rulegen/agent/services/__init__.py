"""Services in the agent: changes of objects become changes of the kernel; drift is detected and repaired."""
