"""What agents share: replay, observation statistics, episodes, several seeds at once.

Nothing here knows of networks or of sparsity.
"""
