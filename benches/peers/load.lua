-- Load for wrk: GET with a bearer token of the file named after `--`, the next token with every request.
-- Without a file: GET without a token. With "once" after the file, no token is sent twice in a run.
local requests, count, next_one, once, ran_out = {}, 0, 0, false, false

function init(args)
  wrk.headers["Host"] = "127.0.0.1"
  if not args[1] then
    requests = { wrk.format("GET", nil) }
    count = 1
    return
  end
  once = args[2] == "once"
  for token in io.lines(args[1]) do
    wrk.headers["Authorization"] = "Bearer " .. token
    count = count + 1
    requests[count] = wrk.format("GET", nil)
  end
end

function request()
  next_one = next_one + 1
  if next_one > count then
    if once and not ran_out then
      ran_out = true
      io.stderr:write("TOKENS RAN OUT\n")
    end
    next_one = 1
  end
  return requests[next_one]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    "RESULT {\"requests\": %d, \"microseconds\": %d, \"p50\": %.0f, \"p99\": %.0f, \"socket_errors\": %d, \"refused\": %d}\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
