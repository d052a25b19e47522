def run(place):
    raise ValueError("no moon")
