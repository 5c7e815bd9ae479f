"""Random bodies for every route that reads one: each is answered or refused, and the API stays up and small."""
