"""The methods of the Bot API that act on chats, with the refusals of the official server.

Each takes a Request and returns the JSON `result`. What is not here does not exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from tests.chat.telegram import shapes, telling
from tests.chat.telegram.formatting import MAX_CAPTION, MAX_TEXT, Text, as_sent_by_a_bot, units
from tests.chat.telegram.keyboards import keyboard_of
from tests.chat.telegram.people import LEGAL_REACTIONS, add_file, reaction, set_reactions, thread_of
from tests.chat.telegram.refusal import NOT_MODIFIED, QUERY_TOO_OLD, bad_request, forbidden, upgraded
from tests.chat.telegram.world import QUERY_LASTS_S, BotAccount, Chat, Draft, File, Json, Message, World

Access = Literal["read", "edit", "write"]

GENERAL_TOPIC = 1
MAX_DOWNLOAD_BYTES = 20 * 2**20
_MAX_COMMANDS = 100
_COMMAND = re.compile(r"[a-z0-9_]{1,32}")
_ACTIONS = frozenset(
    {"typing", "cancel", "choose_sticker", "find_location", "upload_photo", "upload_video", "upload_voice"}
    | {"upload_document", "upload_video_note", "record_video", "record_voice", "record_video_note"}
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call: its bot, its arguments as JSON values, and the files that came along."""

    world: World
    bot: BotAccount
    arguments: Json
    files: dict[str, tuple[str, bytes]]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)


Method = Callable[[Request], Any]
METHODS: dict[str, Method] = {}


def method(name: str) -> Callable[[Method], Method]:
    def register(function: Method) -> Method:
        METHODS[name.lower()] = function
        return function

    return register


def chat_for(request: Request, access: Access) -> Chat:
    """The chat of the call, if the bot may do this there. The rules are `check_chat_access` of the official server."""
    chat_id = request.get("chat_id", "")
    if chat_id == "":
        raise bad_request("chat_id is empty")
    chat = request.world.chat_of(request.bot, chat_id) if isinstance(chat_id, int) else None
    if chat is None:
        if chat_id in request.world.people and access == "write":
            raise forbidden("bot can't initiate conversation with a user")
        raise bad_request("chat not found")
    if chat.upgraded_to is not None and access == "write":
        raise upgraded(chat.upgraded_to.id)
    if chat.kind != "private" and (access != "read" or chat.kind == "supergroup"):
        _check_membership(chat, request.bot)
    if chat.kind == "private" and access == "write":
        if not chat.is_started:
            raise forbidden("bot can't initiate conversation with a user")
        if chat.is_blocked:
            raise forbidden("bot was blocked by the user")
    return chat


def _check_membership(chat: Chat, bot: BotAccount) -> None:
    match chat.status_of.get(bot.id):
        case "kicked":
            raise forbidden(f"bot was kicked from the {chat.kind} chat")
        case None | "left":
            raise forbidden(f"bot is not a member of the {chat.kind} chat")


def _message_for(request: Request, access: Access, name: str) -> Message:
    chat = chat_for(request, access)
    message = chat.find(request.get("message_id", 0))
    if message is None:
        raise bad_request(f"{name} not found")
    return message


def _text(
    request: Request, field: str = "text", *, most: int = MAX_TEXT, too_long: str, may_be_empty: bool = False
) -> Text:
    entities = request.get("entities" if field == "text" else "caption_entities")
    text = as_sent_by_a_bot(request.get(field) or "", request.get("parse_mode"), entities, may_be_empty=may_be_empty)
    if units(text.text) > most:
        raise bad_request(too_long)
    return Text(text.text, tuple(_with_people(request.world, text.entities)))


def _with_people(world: World, entities: Iterable[Json]) -> Iterable[Json]:
    """A text mention names its person in full; of strangers nothing is left."""
    for entity in entities:
        if entity["type"] != "text_mention":
            yield entity
        elif (person := world.people.get(entity["user"]["id"])) is not None:
            yield entity | {"user": shapes.user(person)}


def _thread_for(request: Request, chat: Chat) -> int | None:
    thread = request.get("message_thread_id")
    if not thread or not chat.is_forum:
        return None  # the official server ignores a thread id outside of forums
    if thread not in chat.topics:  # the General topic has no id of its own here
        raise bad_request("message thread not found")
    return int(thread)


def _reply_for(request: Request, chat: Chat) -> tuple[Message | None, str | None]:
    wanted = request.get("reply_parameters")
    if not wanted:
        return None, None
    elsewhere = wanted.get("chat_id", chat.id)
    there = chat if elsewhere == chat.id else request.world.chat_of(request.bot, elsewhere)
    if there is None:
        raise bad_request("chat not found")
    message = there.find(wanted["message_id"])
    if message is None:
        if wanted.get("allow_sending_without_reply"):
            return None, None
        raise bad_request("message to be replied not found")
    quote = wanted.get("quote")
    if quote and quote not in message.text:
        raise bad_request("QUOTE_TEXT_INVALID")
    return message, quote


def _post(request: Request, chat: Chat, shown: Text, file: File | None = None) -> Json:
    reply_to, quote = _reply_for(request, chat)
    asked = _thread_for(request, chat)
    keyboard = keyboard_of(request.get("reply_markup"))
    message = Message(
        id=chat.next_id(),
        chat=chat,
        sender=request.bot,
        date=int(request.world.now()),
        shown=shown,
        thread=thread_of(chat, reply_to, asked),
        reply_to=reply_to,
        quote=quote,
        keyboard=keyboard,
        file=file,
    )
    chat.add(message)
    telling.tell_message(message)
    return shapes.message(message)


@method("sendMessage")
def send_message(request: Request) -> Json:
    shown = _text(request, too_long="Message is too long")
    return _post(request, chat_for(request, "write"), shown)


@method("sendDocument")
def send_document(request: Request) -> Json:
    wanted = request.get("document")
    if isinstance(wanted, bytes):
        file = add_file(request.world, *request.files["document"])
    elif isinstance(wanted, str) and wanted.startswith("attach://"):
        attached = request.files.get(wanted.removeprefix("attach://"))
        if attached is None:
            raise bad_request("There is no document in the request")
        file = add_file(request.world, *attached)
    elif wanted in request.world.files:
        file = request.world.files[wanted]
    else:
        raise bad_request(
            "There is no document in the request" if not wanted else "Wrong file identifier/HTTP URL specified"
        )
    if not file.data:
        raise bad_request("file must be non-empty")
    shown = _text(request, "caption", most=MAX_CAPTION, too_long="message caption is too long", may_be_empty=True)
    return _post(request, chat_for(request, "write"), shown, file)


@method("sendMessageDraft")
def send_message_draft(request: Request) -> bool:
    shown = _text(request, too_long="MESSAGE_TOO_LONG", may_be_empty=True)
    chat = chat_for(request, "write")
    if chat.kind != "private":
        raise bad_request("TEXTDRAFT_PEER_INVALID")
    if not request.get("draft_id"):
        raise bad_request("RANDOM_ID_INVALID")
    thread = _thread_for(request, chat)
    old = chat.drafts.get(thread)
    is_same = old is not None and old.draft_id == request.get("draft_id")
    if old is not None and is_same and old.is_stopped:
        return True  # the person has seen enough of this one
    chat.drafts[thread] = Draft(
        draft_id=request.get("draft_id"),
        shown=shown,
        shown_at=request.world.now(),
        thread=thread,
        can_stop=bool(request.get("can_stop")),
        keep_on_stop=bool(request.get("keep_on_stop")),
        n_updates=old.n_updates + 1 if old is not None and is_same else 1,
    )
    chat.previews.append(shown.text)
    return True


def _own_message_for(request: Request) -> Message:
    message = _message_for(request, "edit", "message to edit")
    if message.sender is not request.bot or message.chat.upgraded_to is not None or message.service:
        raise bad_request("message can't be edited")
    return message


@method("editMessageText")
def edit_message_text(request: Request) -> Json:
    shown = _text(request, too_long="MESSAGE_TOO_LONG")
    keyboard = keyboard_of(request.get("reply_markup"))
    message = _own_message_for(request)
    if message.file is not None:
        raise bad_request("there is no text in the message to edit")
    # Without reply_markup an edit takes the buttons away.
    if (shown, keyboard) == (message.shown, message.keyboard):
        raise bad_request(NOT_MODIFIED)
    message.history.append(message.shown)
    message.shown, message.keyboard = shown, keyboard
    return _edited(message)


@method("editMessageReplyMarkup")
def edit_message_reply_markup(request: Request) -> Json:
    keyboard = keyboard_of(request.get("reply_markup"))
    message = _own_message_for(request)
    if keyboard == message.keyboard:
        raise bad_request(NOT_MODIFIED)
    message.keyboard = keyboard
    return _edited(message)


def _edited(message: Message) -> Json:
    message.n_edits += 1
    message.edit_date = int(message.chat.world.now())
    return shapes.message(message)


@method("deleteMessage")
def delete_message(request: Request) -> bool:
    message = _message_for(request, "write", "message to delete")
    is_own = message.sender is request.bot
    if not is_own and message.chat.kind != "private" and not message.chat.is_admin(request.bot):
        raise bad_request("message can't be deleted")
    message.is_deleted = True
    return True


@method("setMessageReaction")
def set_message_reaction(request: Request) -> bool:
    message = _message_for(request, "read", "message to react")
    wanted: list[Json] = request.get("reaction") or []
    if len(wanted) > 1:
        raise bad_request("REACTIONS_TOO_MANY")
    for one in wanted:
        if one["type"] == "paid":
            raise bad_request("Can't parse ReactionType: invalid reaction type specified")
        if not _may_react(message, one):
            raise bad_request("REACTION_INVALID")
    new = [reaction(one["emoji"]) if one["type"] == "emoji" else one for one in wanted]
    set_reactions(message, request.bot.id, new, request.bot)
    return True


def _may_react(message: Message, wanted: Json) -> bool:
    if wanted["type"] == "custom_emoji":  # bots may join one that somebody has set
        return any(wanted in given for given in message.reactions_by.values())
    emoji = wanted["emoji"].replace("\ufe0f", "")
    allowed = message.chat.allowed_reactions
    return emoji in LEGAL_REACTIONS and (allowed is None or emoji in allowed)


@method("sendChatAction")
def send_chat_action(request: Request) -> bool:
    if request.get("action") not in _ACTIONS:
        raise bad_request("Wrong parameter action in request")
    chat = chat_for(request, "write")
    # Unlike a message, "typing…" may name the General topic.
    thread = request.get("message_thread_id") if chat.is_forum else None
    chat.show_action(None if thread == GENERAL_TOPIC else thread, request.get("action"))
    return True


@method("answerCallbackQuery")
def answer_callback_query(request: Request) -> bool:
    press = request.world.presses.get(str(request.get("callback_query_id")))
    is_ours = press is not None and press.message.sender is request.bot
    if press is None or not is_ours or press.is_answered or request.world.now() > press.pressed_at + QUERY_LASTS_S:
        raise bad_request(QUERY_TOO_OLD)
    if len(request.get("text") or "") > 200:
        raise bad_request("MESSAGE_TOO_LONG")
    press.is_answered = True
    press.text = request.get("text")
    press.is_alert = bool(request.get("show_alert"))
    return True


@method("getMe")
def get_me(request: Request) -> Json:
    return shapes.myself(request.bot)


def _scope(request: Request) -> tuple[str, str]:
    scope = request.get("scope") or {"type": "default"}
    return json.dumps(scope, sort_keys=True), request.get("language_code") or ""


@method("setMyCommands")
def set_my_commands(request: Request) -> bool:
    commands = request.get("commands") or []
    if len(commands) > _MAX_COMMANDS:
        raise bad_request("BOT_COMMANDS_TOO_MUCH")
    for one in commands:
        if not _COMMAND.fullmatch(one["command"].removeprefix("/")):
            raise bad_request("BOT_COMMAND_INVALID")
        if not 1 <= units(one["description"]) <= 256:
            raise bad_request("BOT_COMMAND_DESCRIPTION_INVALID")
    request.bot.commands[_scope(request)] = commands
    return True


@method("getMyCommands")
def get_my_commands(request: Request) -> list[Json]:
    return request.bot.commands.get(_scope(request), [])


@method("deleteMyCommands")
def delete_my_commands(request: Request) -> bool:
    request.bot.commands.pop(_scope(request), None)
    return True


@method("getChat")
def get_chat(request: Request) -> Json:
    return shapes.full_chat(chat_for(request, "read"))


@method("getChatMember")
def get_chat_member(request: Request) -> Json:
    chat = chat_for(request, "read")
    account = chat.accounts.get(request.get("user_id")) or request.world.people.get(request.get("user_id"))
    if account is None:
        raise bad_request("PARTICIPANT_ID_INVALID")
    return shapes.member(chat, account)


@method("getChatAdministrators")
def get_chat_administrators(request: Request) -> list[Json]:
    chat = chat_for(request, "read")
    if chat.kind == "private":
        raise bad_request("there are no administrators in the private chat")
    admins = [account for account in chat.accounts.values() if chat.is_admin(account)]
    # Other bots are left out.
    return [shapes.member(chat, one) for one in admins if one is request.bot or not one.is_bot]


@method("leaveChat")
def leave_chat(request: Request) -> bool:
    chat = chat_for(request, "read")
    if chat.kind == "private":
        raise bad_request("chat member status can't be changed in private chats")
    old = chat.status_of[request.bot.id]
    chat.status_of[request.bot.id] = "left"
    telling.tell_membership(chat, request.bot, request.bot, old, "left")
    return True


@method("getFile")
def get_file(request: Request) -> Json:
    file = request.world.files.get(request.get("file_id"))
    if file is None:
        raise bad_request("wrong file_id or the file is temporarily unavailable")
    if len(file.data) > MAX_DOWNLOAD_BYTES:
        raise bad_request("file is too big")
    request.world.served_paths.add(file.path)
    named = shapes.document(file)
    return {name: named[name] for name in ("file_id", "file_unique_id", "file_size")} | {"file_path": file.path}
