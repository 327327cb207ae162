"""Many runs of one study: which there are, who starts them, what they came to."""
