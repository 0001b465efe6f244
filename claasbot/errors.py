"""Every error that claasbot raises on purpose.

ClaasbotError
├── SettingsError          a setting is unknown or wrong; names it and its range
├── ModelMissing           the base model's folder is absent or incomplete
├── PortInUse              another program listens where we must
├── DataFolderInUse        a second instance on the same data folder
├── StoreError             the database is locked, corrupt or from a newer claasbot
├── ServerError            what the inference server did
│   ├── ServerDown         it cannot be reached; try again after it is ready
│   │   └── ServerBroke    it took the request and gave no whole answer; the request may be why
│   ├── ServerRefused      it answered with an error: our request is at fault
│   ├── AdapterNotLoaded   it does not hold the version that was asked for
│   └── AdaptersMix        it may give one person's adapter to another, so it gets none
├── EngineError            what the trainer did
│   ├── EngineDown         it died or hung; the job may be tried again
│   └── JobRefused         the job itself is wrong; trying again cannot help
├── AdapterDamaged         a version folder does not match its manifest
├── NotYours               the answer, version or row belongs to somebody else
├── NotFound               no such row
├── BadInput               text or a value from a person that cannot be used
├── Busy                   too many ask for the same at once; try again in a moment
├── ImpossibleTransition   a state that the table does not allow
└── ChatError              a platform refused a message
    └── ChatGone           the person blocked the bot or the chat is no more: do not try again

Messages say the value, what was expected and the next action. Expected outcomes
(a rejected candidate, feedback that teaches nothing) are values, not errors.
"""


class ClaasbotError(Exception):
    """Root of the tree: the command line shows its message without a traceback."""


class SettingsError(ClaasbotError):
    pass


class ModelMissing(ClaasbotError):
    pass


class PortInUse(ClaasbotError):
    pass


class DataFolderInUse(ClaasbotError):
    pass


class StoreError(ClaasbotError):
    pass


class ServerError(ClaasbotError):
    pass


class ServerDown(ServerError):
    pass


class ServerBroke(ServerDown):
    pass


class ServerRefused(ServerError):
    pass


class AdapterNotLoaded(ServerRefused):
    pass


class AdaptersMix(ServerRefused):
    pass


class EngineError(ClaasbotError):
    pass


class EngineDown(EngineError):
    pass


class JobRefused(EngineError):
    pass


class AdapterDamaged(ClaasbotError):
    pass


class NotYours(ClaasbotError):
    pass


class NotFound(ClaasbotError):
    pass


class BadInput(ClaasbotError):
    pass


class Busy(ClaasbotError):
    pass


class ImpossibleTransition(ClaasbotError):
    pass


class ChatError(ClaasbotError):
    pass


class ChatGone(ChatError):
    pass
