"""Cyclone DDS settings as XML: loopback unless opened, no multicast needed, fragments that Fast DDS can take."""

from __future__ import annotations

import os
from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

from saccade.errors import ConfigurationError

LOOPBACK = "loopback"
ANY = "any"
URI = "CYCLONEDDS_URI"
FRAGMENT_SIZE = 60_000
"""Bytes per fragment. A Fast DDS receiver with ordinary socket buffers loses most images at Cyclone DDS's own 1344."""
MESSAGE_HEADROOM = 5_500
"""Bytes that a message may be larger than its fragment: headers and small messages that travel along."""
LARGEST_MESSAGE = 65_500
RECEIVE_BUFFER = 4_194_304
"""Asked of the system, which grants at most net.core.rmem_max [B]: a few images."""
PARTICIPANTS = 120
"""Local processes that can find a free port; Cyclone DDS's own limit of 10 is soon reached."""


def settings_xml(*, network: str = LOOPBACK, fragment_size: int = FRAGMENT_SIZE) -> str:
    """Returns the settings of one domain.

    Args:
        network: ``loopback``, ``any`` (what Cyclone DDS picks), or the name of an interface.
        fragment_size: Bytes per fragment of a large message.
    """
    interfaces = ""
    peers = multicast = ""
    if network == LOOPBACK:
        interfaces = '<Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces>'
        # The loopback interface has no multicast: without a peer named here, nobody would be found.
        multicast = "<AllowMulticast>false</AllowMulticast>"
        peers = '<Peers><Peer address="127.0.0.1"/></Peers>'
    elif network != ANY:
        interfaces = f"<Interfaces><NetworkInterface name={quoteattr(network)}/></Interfaces>"
    message = min(fragment_size + MESSAGE_HEADROOM, LARGEST_MESSAGE)
    return (
        '<CycloneDDS><Domain Id="any">'
        f"<General>{interfaces}{multicast}<MaxMessageSize>{message}B</MaxMessageSize>"
        f"<FragmentSize>{fragment_size}B</FragmentSize></General>"
        f"<Discovery><ParticipantIndex>auto</ParticipantIndex>"
        f"<MaxAutoParticipantIndex>{PARTICIPANTS}</MaxAutoParticipantIndex>{peers}</Discovery>"
        f'<Internal><SocketReceiveBufferSize min="default" max="{RECEIVE_BUFFER}B"/></Internal>'
        # Fast DDS (1.15) and Cyclone DDS (1.16) may announce type information: ROS 2 matches types by name.
        "<Compatibility><IgnoreTypeInformation>1.15,1.16</IgnoreTypeInformation></Compatibility>"
        "</Domain></CycloneDDS>"
    )


def domain_id(configured: int | None, environment: Mapping[str, str] | None = None) -> int:
    """Returns the domain: as configured, else ``ROS_DOMAIN_ID``, else 0.

    Raises:
        ConfigurationError: ``ROS_DOMAIN_ID`` is no domain.
    """
    if configured is not None:
        return configured
    text = (os.environ if environment is None else environment).get("ROS_DOMAIN_ID", "") or "0"
    if not text.isdecimal() or int(text) > 232:
        raise ConfigurationError(f"ROS_DOMAIN_ID={text!r}: expected a number from 0 to 232")
    return int(text)
