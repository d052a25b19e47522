"""A file of grey levels, one a line, each an image of that grey."""

import numpy as np

from storage.sources.images import ImageSource
from storage.sources.pixels import PixelImage
from storage.sources.places import named_files


class ThrowawayImages(ImageSource):
    def __init__(self, place):
        self.place, self._files = place, named_files(place, ".throwaway")

    def __len__(self):
        return len(list(self.images()))

    def files(self):
        return self._files

    def images(self):
        for path in self._files:
            for line, grey in enumerate(path.read_text().split(), start=1):
                yield PixelImage(f"{path}, line {line}", np.full((32, 32, 1), int(grey), np.uint8))
