"""The network: whether it is there at all, asked before a download that would wait for minutes."""

import queue
import socket
import threading
import urllib.parse
import urllib.request

_HOST = (
    "storage.googleapis.com"  # where TensorFlow Datasets has its checksums' files, and many sets
)


def check(remedy: str, seconds: float = 5) -> None:
    """Refuse where the network is not there.

    Args:
        remedy: What else could be done, for the message.
        seconds: How long to wait for an answer.

    Raises:
        OSError: If the host of the downloads, or the proxy on the way to it, cannot be reached.

    Example:
        >>> def refused(*arguments):
        ...     raise socket.gaierror("Name or service not known")
        >>> real, socket.getaddrinfo = socket.getaddrinfo, refused
        >>> check("Give `data_dir`.")
        Traceback (most recent call last):
        OSError: `download` needs the network, and ... cannot be reached: Name or service not ...
        >>> socket.getaddrinfo = real
    """
    proxy = urllib.parse.urlsplit(urllib.request.getproxies().get("https", ""))
    host, port = (proxy.hostname, proxy.port or 80) if proxy.hostname else (_HOST, 443)
    answer = queue.Queue()

    def ask():
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except OSError as error:
            answer.put(str(error))
        else:
            answer.put("")

    # A thread, because the resolver has no time limit of its own.
    threading.Thread(target=ask, daemon=True).start()
    try:
        trouble = answer.get(timeout=seconds)
    except queue.Empty:
        trouble = f"no answer within {seconds} seconds"
    if trouble:
        raise OSError(
            f"`download` needs the network, and {host} cannot be reached: {trouble}. {remedy}"
        )
