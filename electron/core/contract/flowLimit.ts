/** So many flows at once the relay takes in; who comes then is reset and recorded as `shed`. */
export const mostFlows = 8192
