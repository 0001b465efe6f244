"""Versions that answer no more leave the server; what the server says to that changes nothing for the person."""


async def test_an_undo_holds_while_the_server_is_down(world):
    await world.taught()
    world.server.faults.is_down = True
    assert await world.cycle.promoting.undo(1) == "base"
    world.server.faults.is_down = False
    assert (await world.chat.say("ada", "And now?")).version_name == "base"


async def test_what_the_server_lists_no_more_is_not_unloaded(world):
    await world.taught()
    world.server.restart()
    await world.cycle.promoting.undo(1)
    assert world.server.seen.unloads == []


async def test_what_the_server_lists_is_unloaded_by_an_undo(world):
    await world.taught()
    [loaded] = await world.server.loaded()
    await world.cycle.promoting.undo(1)
    assert world.server.seen.unloads == [loaded]
    assert await world.server.loaded() == frozenset()
