"""Documents as objects of a Google Cloud Storage bucket: what a deployed service uses.

Compare-and-swap is ``ifGenerationMatch``: a generation never comes back, and 0 stands for "no object".

A reply can be lost after the write was done; trying again then meets 412 although the write won, and a client that
takes 412 for defeat does the work twice. So every object names the write that made it and the versions before it,
and on 412 the object is read again: where our write is among them we won, even if others have built on it since.
The library's own retries are off, for they know nothing of this.
"""

import asyncio
import builtins
import http.client
import os
import secrets
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import orjson
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from common.errors import StoreUnavailable
from common.loops import needs_loop
from common.stores.documents import (
    Body,
    Document,
    DocumentExists,
    VersionConflict,
    check_key,
    check_range,
    encode_body,
)
from common.stores.lineage import generation_of, may_have_forgotten, seal, since_write, unseal

if TYPE_CHECKING:
    from google.cloud.storage import Bucket

P = ParamSpec("P")
T = TypeVar("T")


class _Transient(Exception):
    """The cause may go away. Whether the request was carried out is not known."""


class _Refused(Exception):
    """412: the object has another generation."""


class _Missing(Exception):
    """404: no such object, or no such bucket."""


class GcsDocuments:
    """The store in ``bucket``, under ``prefix``.

    ``endpoint`` is an emulator's address, spoken to without credentials; without one the application's default
    credentials are used. ``call_timeout_s`` bounds each request (connecting, and each wait for bytes),
    ``deadline_s`` an operation with all its ``attempts``; ``sleep`` makes the pauses between them.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        call_timeout_s: float = 4.0,
        deadline_s: float = 12.0,
        attempts: int = 6,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._root = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._objects = _Objects(bucket, endpoint, call_timeout_s)
        self._deadline_s = deadline_s
        self._attempts = attempts
        self._sleep = sleep
        # No thread starts before the first call. The library's session pools ten connections.
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="gcs")
        self._closed = False

    async def get(self, key: str) -> Document | None:
        """See :class:`Documents`."""
        await needs_loop()
        check_key(key)
        return await self._retried(lambda: self._read(key))

    async def create(self, key: str, body: Body) -> Document:
        """See :class:`Documents`."""
        await needs_loop()
        written = await self._write(check_key(key), encode_body(body), base="0", lineage=())
        if written is None:
            raise DocumentExists
        return written

    async def replace(self, document: Document, body: Body) -> Document:
        """See :class:`Documents`."""
        await needs_loop()
        encoded = encode_body(body)
        written = await self._write(check_key(document.key), encoded, base=document.version, lineage=document.lineage)
        if written is None:
            raise VersionConflict
        return written

    async def delete(self, key: str, version: str | None = None) -> bool:
        """See :class:`Documents`.

        Without a version, the one found first is removed, so that a retry cannot remove what was created since.
        After a lost reply, to find nothing counts as having removed it.
        """
        await needs_loop()
        name = self._root + check_key(key)
        tried = False

        async def step() -> bool:
            nonlocal tried
            may_be_done = tried
            try:
                generation = int(version) if version is not None else await self._call(self._objects.generation, name)
                tried = True
                await self._call(self._objects.delete, name, generation)
            except _Missing:
                return may_be_done
            except _Refused as refusal:
                raise (_Transient if version is None else VersionConflict) from refusal
            return True

        return await self._retried(step)

    async def list(self, prefix: str, *, limit: int = 1000, after: str | None = None) -> builtins.list[str]:
        """See :class:`Documents`."""
        await needs_loop()
        start = self._root + check_range(prefix, limit, after)
        # GCS includes the offset itself; "!" sorts before every character of a key.
        offset = f"{self._root}{after}!" if after else None
        names = await self._retried(lambda: self._call(self._objects.names, start, offset, limit))
        return [name.removeprefix(self._root) for name in names]

    async def ping(self) -> None:
        """See :class:`Documents`. Asks once: a health check wants to know of the first failure."""
        await needs_loop()
        await self._retried(lambda: self._call(self._objects.names, self._root, None, 1), attempts=1)

    async def aclose(self) -> None:
        """See :class:`Documents`."""
        await needs_loop()
        self._closed = True
        self._threads.shutdown(wait=False)
        self._objects.close()

    async def _read(self, key: str) -> Document | None:
        try:
            data, generation = await self._call(self._objects.download, self._root + key)
        except _Missing:
            return None
        return _document(key, data, generation)

    async def _write(self, key: str, body: bytes, *, base: str, lineage: tuple[str, ...]) -> Document | None:
        """Put ``body`` in the place of generation ``base``; None where another version is there."""
        write_id = secrets.token_urlsafe(8)
        data = seal(write_id, lineage, body)
        tries = 0

        async def step() -> Document | None:
            nonlocal tries
            tries += 1
            try:
                generation = await self._call(self._objects.upload, self._root + key, data, int(base))
            except _Refused as refusal:
                latest = await self._read(key)
                known = latest.lineage if latest else ()
                ours = since_write(known, write_id)
                if ours:
                    return Document(key, orjson.loads(body), generation_of(ours), ours)
                if tries > 1 and may_have_forgotten(known, base):
                    raise StoreUnavailable from refusal
                return None
            return _document(key, data, generation)

        return await self._retried(step)

    async def _call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``work`` on one of the threads."""
        if self._closed:
            raise StoreUnavailable
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: _translated(work, *args, **kwargs))

    async def _retried(self, step: Callable[[], Awaitable[T]], attempts: int | None = None) -> T:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Transient),
            stop=stop_after_attempt(attempts or self._attempts),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            sleep=self._sleep,
            reraise=True,
        )

        async def attempt() -> T:
            return await step()  # tenacity awaits only what was defined with `async def`

        try:
            async with asyncio.timeout(self._deadline_s):
                return await retrying(attempt)
        except (_Transient, _Missing, TimeoutError) as failure:
            raise StoreUnavailable from failure


class _Objects:
    """The library's calls: each is one request, made on the calling thread and never repeated."""

    def __init__(self, bucket: str, endpoint: str | None, timeout_s: float) -> None:
        self._bucket_name = bucket
        self._endpoint = endpoint
        self._once: dict[str, Any] = {"timeout": timeout_s, "retry": None}
        self._opening = threading.Lock()
        self._opened: Any = None

    def upload(self, name: str, data: bytes, generation: int) -> int:
        blob = self._bucket().blob(name)
        blob.cache_control = "no-store"
        blob.upload_from_string(data, "application/json", if_generation_match=generation, **self._once)
        return int(blob.generation)

    def download(self, name: str) -> tuple[bytes, int]:
        blob = self._bucket().blob(name)
        data: bytes = blob.download_as_bytes(**self._once)
        return data, int(blob.generation)

    def generation(self, name: str) -> int:
        blob = self._bucket().blob(name)
        blob.reload(**self._once)
        return int(blob.generation)

    def delete(self, name: str, generation: int) -> None:
        self._bucket().blob(name).delete(if_generation_match=generation, **self._once)

    def names(self, prefix: str, offset: str | None, limit: int) -> list[str]:
        found = self._bucket().list_blobs(
            prefix=prefix,
            start_offset=offset,
            max_results=limit,
            fields="items(name),nextPageToken",
            **self._once,
        )
        return [blob.name for blob in found]

    def close(self) -> None:
        if self._opened is not None:
            self._opened.client.close()

    def _bucket(self) -> "Bucket":
        with self._opening:
            if self._opened is None:
                # Otherwise the library asks for the bucket's metadata on a thread of its own, which needs a permission
                # that we do not have and a connection that we use (googleapis/google-cloud-python, issue 17650).
                os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
                from google.cloud import storage  # noqa: PLC0415 - 160 ms that a cold start must not pay

                options = {"api_endpoint": self._endpoint} if self._endpoint else None
                client = storage.Client(
                    project=None, client_options=options, use_auth_w_custom_endpoint=not self._endpoint
                )
                self._opened = client.bucket(self._bucket_name)
            return self._opened


def _translated(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``work``; what the library raises becomes one of our own kinds, here and nowhere else."""
    try:
        return work(*args, **kwargs)
    except Exception as error:
        kind = _kind(error)
        if kind is None:
            raise
        raise kind from error


def _kind(error: Exception) -> type[Exception] | None:
    """What an exception of the library stands for; None for what is a defect of ours."""
    import urllib3.exceptions  # noqa: PLC0415 - comes with the library, and so at the same time
    from google.api_core.exceptions import GoogleAPICallError  # noqa: PLC0415 - as above
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - as above
    from google.cloud.storage.exceptions import DataCorruption  # noqa: PLC0415 - as above

    if isinstance(error, GoogleAPICallError):
        status = error.code or 500
        named = {404: _Missing, 408: _Transient, 412: _Refused, 429: _Transient}
        return named.get(status, _Transient if status >= 500 else StoreUnavailable)
    if isinstance(error, GoogleAuthError):
        return _Transient if error.retryable else StoreUnavailable
    # Whatever `requests` raises is an OSError.
    if isinstance(error, OSError | http.client.HTTPException | urllib3.exceptions.HTTPError | DataCorruption):
        return _Transient
    return None


def _document(key: str, data: bytes, generation: int) -> Document:
    try:
        return unseal(key, data, generation)
    except ValueError as error:
        raise StoreUnavailable from error
