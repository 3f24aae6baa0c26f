# Runs a server for a process that may die at any moment.
#
# Arguments: the signal that makes the server end at once with all its children, then the server's command.
# Standard input is the lifeline: its end means that the starting process is gone or wants the server gone.
# Standard output gets one line, the server's process id; standard error is the server's log.
exec 3<&0 </dev/null
stop=$1
shift

"$@" 3<&- 1>&2 &
server=$!
echo "$server"
exec 1>&2

# Prints a process and all below it; `ps` is not on every machine.
tree() {
    echo "$1"
    for stat in /proc/[0-9]*/stat; do
        { read -r line <"$stat"; } 2>/dev/null || continue
        rest=${line##*) }
        rest=${rest#* }
        if [ "${rest%% *}" = "$1" ]; then
            (tree "${line%% *}")
        fi
    done
}

{
    read -r _ <&3
    kill -CONT "$server" 2>/dev/null
    kill "-$stop" "$server" 2>/dev/null
    tries=0
    while kill -0 "$server" 2>/dev/null && [ "$tries" -lt 60 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    if kill -0 "$server" 2>/dev/null; then
        kill -STOP "$server"
        kill -KILL $(tree "$server")
    fi
} 2>/dev/null &
watcher=$!

# The shell is the server's parent, so the id cannot be given to another process before this returns.
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
