"""Looking at banks: what their vectors are worth."""
