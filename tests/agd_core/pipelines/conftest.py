import pytest

from tests.agd_core.pipelines.stock import write_adapter


@pytest.fixture(scope="session")
def adapters(tmp_path_factory):
    """Folders of adapters by (miniature, trained), written once."""
    root, written = tmp_path_factory.mktemp("adapters"), {}

    def folder(miniature, trained=True):
        key = (miniature, trained)
        if key not in written:
            written[key] = write_adapter(root / f"{miniature}-{trained}", miniature, trained)
        return written[key]

    return folder
