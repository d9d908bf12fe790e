"""Small corpora to try the tools on, generated where they are used."""
