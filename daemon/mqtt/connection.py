"""Daemon: how to connect to a broker: versions, credentials, certificates, and refusals explained.

May import paho-mqtt. Must never know topics or payloads. Used by the service's sessions
(`daemon.mqtt.session`), the commands that send it requests (`daemon.mqtt.service_client`) and
`scentd check`.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from daemon.config.credentials import read_secret
from daemon.mqtt.topics import OFFLINE, STATUS, topic_prefix
from daemon.system.owner import with_own_rights
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paho.mqtt.reasoncodes import ReasonCode

    from daemon.config.settings import MqttConfig, TlsConfig

IN_FLIGHT_LIMIT = 20
"""Unacknowledged QoS 1 messages at a time, paho's own default."""

CONNECT_TIMEOUT_S = 5.0
TCP_USER_TIMEOUT_MS = 20_000
"""A connection is lost when the other side's kernel has acknowledged nothing for so long. This
detects a network that drops packets sooner than MQTT's keep-alive, which takes up to twice
`keepalive_s`."""

CONNACK_TIMEOUT_S = 10.0
GUESS_TIMEOUT_S = 3.0
"""Time for an answer to MQTT 5 while 3.1.1 is still to be tried: amqtt, which knows only 3.1.1,
waits for more bytes when it reads the last will of a version 5 CONNECT."""

LARGEST_PACKET_BYTES = 1 << 20
"""Far more than a request, an answer or a list of models; the broker may send nothing larger."""

_OTHER_NAME = frozenset({62, 64})
_OTHER_TIME = frozenset({9, 10})
"""OpenSSL's codes: another host name or address; not yet valid, expired."""
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
"""OpenSSL's reasons for an answer that is not TLS."""

_UNAVAILABLE = frozenset({"Server unavailable", "Server busy", "Server shutting down"})
_REFUSED = frozenset(
    {"Not authorized", "Bad user name or password", "Bad authentication method", "Banned"}
)
PROTOCOL_NAMES = {MQTTProtocolVersion.MQTTv5: "5", MQTTProtocolVersion.MQTTv311: "3.1.1"}


class BrokerError(ScentdError):
    """The broker cannot be used; the message says why and what to do."""


class BrokerUnreachableError(BrokerError):
    """There was no answer at host and port, or none in MQTT."""


class BrokerRefusedError(BrokerError):
    """The broker answered and refuses this rig."""


class WrongProtocolError(BrokerRefusedError):
    """The broker does not seem to speak the version that was tried."""


class NoRetainError(BrokerRefusedError):
    """The broker keeps no retained messages and refuses a last will that is one."""


class _Client(paho.Client):
    """Ends the connection before it reads a packet that is too large.

    Attributes
    ----------
    too_large_bytes: length of such a packet, once one came.
    """

    too_large_bytes: int | None = None

    def _sock_recv(self, bufsize: int) -> bytes:
        # paho asks for the whole rest of a packet, whose length the other side states. MQTT 3.1.1
        # has no way to limit it, and in MQTT 5 the broker may ignore the limit.
        if bufsize > LARGEST_PACKET_BYTES:
            self.too_large_bytes = bufsize
            raise ConnectionAbortedError(f"a packet of {bufsize} bytes is not read")
        return super()._sock_recv(bufsize)


def make_client(
    rig_id: str,
    config: MqttConfig,
    protocol: MQTTProtocolVersion,
    *,
    suffix: str = "",
    retain: bool | None = None,
) -> _Client:
    """Return an unconnected client with credentials and certificates set.

    Parameters
    ----------
    suffix: distinguishes its client id from the service's.
    retain: whether the service's last will, which this sets, is retained; None sets none.

    Raises
    ------
    ScentdError: the password file or a certificate cannot be read.
    """
    # A fixed client id lets the broker replace the half-open connection of a
    # rig that lost its power, last will included.
    client = _Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"scentd-{rig_id}{suffix}",
        protocol=protocol,
        reconnect_on_failure=False,
    )
    client.connect_timeout = CONNECT_TIMEOUT_S
    client.max_inflight_messages_set(IN_FLIGHT_LIMIT)
    if retain is not None:
        client.will_set(topic_prefix(rig_id) + STATUS, OFFLINE, qos=1, retain=retain)
    # The configuration names these files, and root's command may act as another user.
    with with_own_rights():
        if config.username is not None:
            secret = None if config.password_file is None else read_secret(config.password_file)
            client.username_pw_set(config.username, secret)
        if config.tls is not None:
            client.tls_set_context(_tls_context(config.tls))
    return client


def _tls_context(tls: TlsConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
        if tls.cert is not None:
            context.load_cert_chain(str(tls.cert), None if tls.key is None else str(tls.key))
    except FileNotFoundError as error:
        raise BrokerError(
            f"mqtt.tls names the file {error.filename or tls.ca or tls.cert}, which does not "
            "exist. Correct the path, or leave the setting out to trust the system's authorities."
        ) from None
    except (ssl.SSLError, OSError) as error:
        raise BrokerError(
            f"The certificates named in mqtt.tls cannot be used ({error}). "
            "They must be PEM files, and key must belong to cert."
        ) from None
    return context


def protocols(config: MqttConfig) -> list[MQTTProtocolVersion]:
    """Return the versions to try, in order."""
    return {
        "5": [MQTTProtocolVersion.MQTTv5],
        "3.1.1": [MQTTProtocolVersion.MQTTv311],
        "auto": [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311],
    }[str(config.protocol)]


def connect(client: paho.Client, config: MqttConfig) -> None:
    """Open the connection and send CONNECT.

    Raises
    ------
    BrokerUnreachableError: nothing listens there, or the certificate is not trusted.
    """
    where = f"{config.host}:{config.port}"
    tls_errors = (ssl.SSLError,) if config.tls is None else (ssl.SSLError, ConnectionResetError)
    limits = None
    if client.protocol == MQTTProtocolVersion.MQTTv5:
        limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        limits.MaximumPacketSize = LARGEST_PACKET_BYTES
    try:
        client.connect(config.host, config.port, config.keepalive_s, properties=limits)
        if isinstance(connection := client.socket(), socket.socket):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
    except tls_errors as error:
        raise BrokerUnreachableError(_tls_trouble(where, error)) from None
    except socket.gaierror as error:
        raise BrokerUnreachableError(
            f"The name of the broker, mqtt.host {config.host!r}, does not resolve "
            f"({error.strerror}). Check the spelling and this machine's network."
        ) from None
    except UnicodeError:
        raise BrokerUnreachableError(
            f"mqtt.host {config.host!r} is no host's name: its parts have 1 to 63 characters, with "
            "one dot between them. Correct it."
        ) from None
    except OSError as error:
        raise BrokerUnreachableError(
            f"No MQTT broker answers at {where} ({error.strerror or error}). Start one there "
            "(for example: sudo apt install mosquitto), or correct mqtt.host and mqtt.port."
        ) from None


def _tls_trouble(where: str, error: OSError) -> str:
    """Return what the other side did wrong, as far as OpenSSL says, and the remedy."""
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLCertVerificationError):
        came = error.verify_message.rstrip(".")
        if error.verify_code in _OTHER_NAME:
            mend = "Write in mqtt.host a name or address that the certificate holds"
        elif error.verify_code in _OTHER_TIME:
            mend = "Renew the certificate, or set this machine's clock right"
        else:
            mend = "Name in mqtt.tls.ca the authority that signed it"
        return (
            f"The certificate of the broker at {where} is not accepted (verify failed: {came}). "
            f"{mend}."
        )
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError):
        return (
            f"What answers at {where} ended the connection during TLS's first steps, as a port of "
            "plain MQTT does. Set mqtt.port to the broker's TLS port (often 8883), or leave out "
            "mqtt.tls."
        )
    if reason in _NO_TLS:
        return (
            f"What answers at {where} could not agree on TLS: it does not speak TLS "
            f"({reason}). Set mqtt.port to the broker's TLS port (often 8883), or leave out "
            "mqtt.tls."
        )
    return (
        f"The broker at {where} and scentd could not agree on TLS ({error}). Check that mqtt.port "
        "is the broker's TLS port (often 8883), and whether the broker wants a certificate of this "
        "rig (mqtt.tls.cert)."
    )


def check_connack(reason: ReasonCode | None, config: MqttConfig, *, last: bool) -> None:
    """Raise the error that explains why the broker did not accept the connection, if so.

    Parameters
    ----------
    reason: of CONNACK; None if none was received in time.
    config: for the message.
    last: whether no other version of the protocol is left to try.
    """
    where = f"{config.host}:{config.port}"
    if reason is None and not last:
        raise _wrong_protocol(config)
    if reason is None:
        # Some brokers of 3.1.1 read a CONNECT of version 5 as longer than it is, and wait.
        only_5 = str(config.protocol) == "5"
        hint = " If it only speaks 3.1.1, leave mqtt.protocol at auto." if only_5 else ""
        raise BrokerUnreachableError(
            f"Something at {where} accepts connections but does not answer as an MQTT broker. "
            "Check mqtt.port (1883 is plain MQTT, 8883 MQTT with TLS, 80 and 443 are not MQTT), "
            f"and whether it wants TLS (mqtt.tls).{hint}"
        )
    if not reason.is_failure:
        return
    name = reason.getName()
    if name == "Retain not supported":
        raise NoRetainError(
            f"The broker at {where} keeps no retained messages. Let it keep them (Mosquitto: "
            "retain_available true)."
        )
    if name == "QoS not supported":
        raise _no_acknowledgements(config)
    if name == "Unsupported protocol version":
        raise _wrong_protocol(config)
    if name in _UNAVAILABLE:
        raise BrokerUnreachableError(
            f"The broker at {where} accepts no connections now: {name.lower()}. It is starting, "
            "stopping or full; scentd tries again every few seconds."
        )
    if name in _REFUSED:
        who = "without a username" if config.username is None else f"as user {config.username!r}"
        raise BrokerRefusedError(
            f"The broker at {where} refuses this rig {who}: {name.lower()}. Check mqtt.username "
            "and the file named by mqtt.password_file against the broker's user list."
        )
    raise BrokerRefusedError(f"The broker at {where} refuses this rig: {name.lower()}.")


def keeps_retained(properties: Properties | None, config: MqttConfig) -> bool:
    """Return whether the broker says, in CONNACK, that it keeps retained messages.

    Raises
    ------
    BrokerRefusedError: it does not acknowledge messages.
    """
    if getattr(properties, "MaximumQoS", 1) == 0:
        raise _no_acknowledgements(config)
    return bool(getattr(properties, "RetainAvailable", 1))


def _no_acknowledgements(config: MqttConfig) -> BrokerRefusedError:
    return BrokerRefusedError(
        f"The broker at {config.host}:{config.port} allows QoS 0 only, which acknowledges nothing, "
        "so that messages could be lost unnoticed. Let it accept QoS 1 (Mosquitto: max_qos 1)."
    )


def check_size(client: paho.Client) -> None:
    """Raise if the connection was ended because of a packet that is too large."""
    if isinstance(client, _Client) and client.too_large_bytes is not None:
        raise BrokerUnreachableError(
            f"The broker sent a packet of {client.too_large_bytes} bytes, more than the "
            f"{LARGEST_PACKET_BYTES} that scentd reads, and the connection was ended. Find who "
            "publishes it below request/, and limit the broker (Mosquitto: message_size_limit)."
        )


def _wrong_protocol(config: MqttConfig) -> WrongProtocolError:
    return WrongProtocolError(
        f"The broker at {config.host}:{config.port} does not speak MQTT {config.protocol}. "
        "Leave mqtt.protocol at auto, which falls back to 3.1.1."
    )


def connack_timeout_s(*, last: bool) -> float:
    """Return how long to wait for CONNACK; `last` as for `check_connack`."""
    return CONNACK_TIMEOUT_S if last else GUESS_TIMEOUT_S


def try_broker(rig_id: str, config: MqttConfig) -> str:
    """Connect as the service does; return the protocol's version, and what the broker lacks.

    The client id differs from the service's, which the broker would disconnect otherwise.

    Raises
    ------
    BrokerError: the broker cannot be used.
    """
    try:
        client, properties = _connect_any_version(rig_id, config, "-check", retain=True)
        will_retained = True
    except NoRetainError:
        client, properties = _connect_any_version(rig_id, config, "-check", retain=False)
        will_retained = False
    try:
        retained = keeps_retained(properties, config) and will_retained
    finally:
        client.disconnect()
        close_socket(client)
    version = PROTOCOL_NAMES[client.protocol]
    if retained:
        return version
    return (
        f"{version} but keeps no retained messages: a subscriber learns the state of the rig only "
        "when it changes (Mosquitto: retain_available true)"
    )


@contextmanager
def connected_client(rig_id: str, config: MqttConfig, *, suffix: str) -> Iterator[paho.Client]:
    """Connect a client for the block, beside the service.

    `suffix` distinguishes its client id from the service's, which the broker would disconnect.

    Raises
    ------
    BrokerError: the broker cannot be used.
    """
    client, _ = _connect_any_version(rig_id, config, suffix)
    try:
        yield client
    finally:
        client.disconnect()
        close_socket(client)


def _connect_any_version(
    rig_id: str, config: MqttConfig, suffix: str, *, retain: bool | None = None
) -> tuple[paho.Client, Properties | None]:
    """Return a connected client and what CONNACK says; `retain` as for `make_client`."""
    *others, last = protocols(config)
    for protocol in others:
        with suppress(WrongProtocolError):
            client = make_client(rig_id, config, protocol, suffix=suffix, retain=retain)
            return _connect_and_wait(client, config, last=False)
    client = make_client(rig_id, config, last, suffix=suffix, retain=retain)
    return _connect_and_wait(client, config, last=True)


def _connect_and_wait(
    client: paho.Client, config: MqttConfig, *, last: bool
) -> tuple[paho.Client, Properties | None]:
    reasons: list[ReasonCode] = []
    said: list[Properties | None] = [None]

    def on_connect(*args: Any) -> None:
        *_, reason, properties = args
        reasons.append(reason)
        said.append(properties)

    client.on_connect = on_connect
    connect(client, config)
    try:
        deadline_s = time.monotonic() + connack_timeout_s(last=last)
        while not reasons and time.monotonic() < deadline_s:
            if client.loop(0.2) != paho.MQTT_ERR_SUCCESS:
                break
        check_connack(reasons[0] if reasons else None, config, last=last)
    except ScentdError:
        close_socket(client)
        raise
    return client, said[-1]


def close_socket(client: paho.Client) -> None:
    """Close the socket without DISCONNECT: after a failure the last will must be published."""
    connection = client.socket()
    if connection is not None:
        connection.close()
