def run(place):
    with place.part(model="moon"):
        raise ValueError("no moon")
    place.fact(went="on")
