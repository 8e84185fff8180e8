"""Archives of files, as the tests of their readers write them."""

import io
import tarfile


def packed(files, **options):
    """The bytes of a tar of files, by name."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", **options) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()
