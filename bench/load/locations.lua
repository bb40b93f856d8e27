-- Asks 200 hosts in turn, each for another of its 100 locations.
local requests = {}
for host = 0, 199 do
  local location = (host * 37) % 100
  local path = string.format("/api/v2/collection%d/item/%d", location, host)
  requests[host + 1] = wrk.format("GET", path, { Host = string.format("host%d.bench", host) })
end

local turn = 0
request = function()
  turn = turn % #requests + 1
  return requests[turn]
end
