"""What is done with the requests for some paths of a host, one file for each subject."""
