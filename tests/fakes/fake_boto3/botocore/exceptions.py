"""The errors of AWS' library: the service's own, and those on the way to it."""


class ClientError(Exception):
    """The service refused."""


class BotoCoreError(Exception):
    """The service was not reached."""


class NoCredentialsError(BotoCoreError):
    """No role is known yet."""


class EndpointConnectionError(BotoCoreError):
    """There is no way to the service."""
